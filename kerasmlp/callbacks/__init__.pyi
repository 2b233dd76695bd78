from kerasmlp.callbacks.layer_out import LayerOut as LayerOut
