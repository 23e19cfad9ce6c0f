"""The example road: The Complete Journey through Waypost, from events to decisions."""
