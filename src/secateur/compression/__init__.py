"""Groups, saliency, transforms, plans, recalibration: everything that happens to the network itself."""
