"""What a course needs: atlas, claims, exercises, assignments, runner, command line."""
