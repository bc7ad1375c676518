"""What every ensemble needs and no single method owns."""
