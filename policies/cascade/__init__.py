"""Methods that call members one after another, deciding on each answer."""
