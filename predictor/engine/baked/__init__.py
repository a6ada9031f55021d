"""Compiled packages in place of torch: the bundle's format, the binding to libtorch, and the runtime on both."""
