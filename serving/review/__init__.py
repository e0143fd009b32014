"""The review of an output by people: `store` holds what they say, `app` serves the page, `page/` is the page itself."""
