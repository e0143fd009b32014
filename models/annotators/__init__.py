"""Networks that draw control maps of pictures: layouts and names as published, loaded from files alone."""
