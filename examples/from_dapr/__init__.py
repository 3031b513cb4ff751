"""Two small apps that talk through the mesh without knowing of it."""
