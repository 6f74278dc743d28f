"""Videos as samples: read, sampled, stored."""
