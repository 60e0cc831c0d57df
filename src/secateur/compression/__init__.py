"""Groups, saliency, selection, surgery, recalibration: everything that happens to the network itself."""
