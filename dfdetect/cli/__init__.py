"""The console command `dfdetect`, one module a command."""
