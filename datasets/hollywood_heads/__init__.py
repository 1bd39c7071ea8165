"""HollywoodHeads: human heads in film frames, with boxes."""
