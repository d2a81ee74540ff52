"""What a step costs on a device: traced, priced, charged."""
