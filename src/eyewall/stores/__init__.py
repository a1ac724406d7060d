"""Places that keep records. Each file is one store and imports only its own driver."""
