"""An app for servers in processes of their own."""
