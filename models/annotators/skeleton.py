"""People as OpenPose draws them: which points belong together, and in which colours."""

NECK = 1
BODY_POINTS = 18
"""nose, neck; right shoulder, elbow, wrist, the left ones; right hip, knee, ankle, the left ones; eyes and ears"""
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""of the body's points, and darkened of the limbs; RGB"""
LIMB_LIGHT = 0.6
HAND_POINTS = 21
HAND_EDGES = tuple(
    edge
    for finger in range(5)
    for edge in ((0, 4 * finger + 1), *((4 * finger + i, 4 * finger + i + 1) for i in (1, 2, 3)))
)
HAND_COLOUR, FACE_COLOUR = (0, 0, 255), (255, 255, 255)
FACE_POINTS = 68
OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""which of COCO's 17 points of a body each is; the neck is the middle of the shoulders"""
COCO_SHOULDERS = (5, 6)
FACE_FROM, LEFT_HAND_FROM, RIGHT_HAND_FROM, POINTS = 23, 91, 112, 133
"""COCO-WholeBody's points: 17 of the body, 6 of the feet, 68 of the face, 21 of each hand"""
