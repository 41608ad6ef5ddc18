"""AWS: moto for storage-like services, an own SageMaker in front."""
