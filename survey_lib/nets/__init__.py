"""Small networks ``net(x, c_noise, cond)``, independent of the diffusion around them."""
