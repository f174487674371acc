"""What an experiment needs: data, training, checkpoints, metrics, cost, plots, runtime."""
