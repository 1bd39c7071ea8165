"""Any folder of images with head boxes, in the layout of PASCAL VOC or COCO."""
