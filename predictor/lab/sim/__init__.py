"""A service that sleeps, simulated: Knative's autoscaler, pods, GPUs and the engine, replaying a trace and its bill."""
