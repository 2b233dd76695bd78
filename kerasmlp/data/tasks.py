"""What a label can be learned as, in words."""

TASKS = {
    "years": "ages in years",
    "groups": "age groups",
    "gender": "gender",
    "classes": "classes",
    "number": "a number",
}
