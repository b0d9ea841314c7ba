"""Security: allowed addresses (SSRF), signatures of messages, masking of secrets."""
