"""The course: atlas, claims, exercises, lessons, publishing, sweeps and the command line."""
