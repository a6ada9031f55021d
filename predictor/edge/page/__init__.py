"""The web page's files; `routes/page.py` serves them. No build step: what is here is what the browser gets."""
