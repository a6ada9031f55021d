"""One file per step; `predictor.edge.stores.migrations` says how they are named."""
