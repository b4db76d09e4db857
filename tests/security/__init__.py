"""Security: what others send forges nothing, tenants stay apart, and secrets stay secret."""
