"""What gensdk asks of the machine: files, locks, processes, memory, the terminal."""
