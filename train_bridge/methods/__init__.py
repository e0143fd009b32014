"""What is trained and how its loss is made: one file per method, used by one trainer."""
