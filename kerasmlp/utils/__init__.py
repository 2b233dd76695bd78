"""What every room needs: checks, files, locks, processes, tables."""
