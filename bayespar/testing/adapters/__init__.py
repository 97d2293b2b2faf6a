"""Other libraries in the roles that the checks take; each module imports its library when it is used."""
