"""The command without a cluster: accounts are checked, offers shown, clusters planned and quoted from YAML files."""
