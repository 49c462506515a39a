"""pythae's own training runs beside those with our MMD: losses and times."""
