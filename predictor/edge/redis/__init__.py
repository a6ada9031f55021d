"""What several edges share through Redis; imported only where there is one, for it takes long to import."""
