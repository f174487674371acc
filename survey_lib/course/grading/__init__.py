"""Grading of a class: each answer runs in a process of its own, and the parent measures what comes back.

* `submissions`: the notebooks of a class, and the cells of answers in them;
* `wire`: messages between the parent and an answering process, as plain tensors and texts;
* `child`: the answering process, and `sandbox` what it may not do;
* `remote`: the parent's side, an answer that is called like a function;
* `grade`: points and the table of the class, and `sheets` a page for each student;
* `courses`: a course laid out for nbgrader.
"""
