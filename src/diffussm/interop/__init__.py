"""Other people's files and objects, in and out."""
