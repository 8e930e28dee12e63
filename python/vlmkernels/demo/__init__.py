"""The main job: `vlmkernels demo` trains models on real drawings with this package's operators and reports what they learned."""
