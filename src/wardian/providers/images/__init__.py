"""Images as files: what an archive holds (`archive`), a root file system made of it (`flatten`), and where those are kept (`store`)."""
