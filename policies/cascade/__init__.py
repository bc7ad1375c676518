"""Methods that ask members one after another and look at an answer before they ask on."""
