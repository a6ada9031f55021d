"""What the edge keeps: keys, jobs, the ledger, images, cached results, quotas."""
