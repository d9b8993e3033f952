"""Pictures by latent diffusion (Stable Diffusion and its kin), and cures for the objects that it leaves out."""
