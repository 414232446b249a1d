"""The benchmark of a network on this CPU: dense, squeezed and direct sparse, measured beside what was predicted."""
