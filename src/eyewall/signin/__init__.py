"""Who is signed in, on which devices, and how that ends."""
