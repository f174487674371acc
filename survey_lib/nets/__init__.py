"""Small networks ``net(x, c_noise, cond)``; they know nothing of diffusion."""
