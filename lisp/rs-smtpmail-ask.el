;;; rs-smtpmail-ask.el --- When the user is asked, and what C-g stops  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The engine's events are handled from timers, where Emacs inhibits quitting
;; and where nobody expects a question.  Here is the one predicate for "may I
;; ask now", and the one place where quitting is allowed.

;;; Code:

(eval-when-compile (require 'subr-x))

(declare-function rs-smtpmail--guarded "rs-smtpmail-engine")

(defvar rs-smtpmail--awaited)

;;;; Quitting

(defmacro rs-smtpmail--stoppably (&rest body)
  "Evaluate BODY such that \\[keyboard-quit] stops it, from a timer, too.
This is for questions and for code of other people.  The caller handles
the quit."
  (declare (indent 0) (debug t))
  `(let ((inhibit-quit nil))
     ,@body))

;;;; The user's attention

(defun rs-smtpmail--on-screen-p (&optional frame)
  "Whether somebody can see FRAME, the selected one by default.
A daemon has a frame that nobody sees."
  (not (and (daemonp)
            (equal (terminal-name frame) "initial_terminal"))))

(defun rs-smtpmail--somebody-looks-p ()
  "Whether there is a frame on which a question can be seen."
  (seq-some #'rs-smtpmail--on-screen-p (frame-list)))

(defun rs-smtpmail--user-is-there-p (seen)
  "Whether the user can be asked something now.
SEEN is the value of `num-nonmacro-input-events' a moment ago, for a
question must not take somebody who types by surprise.  Who waits for a
message to be sent is asked at once."
  (not (or noninteractive
           (not (rs-smtpmail--on-screen-p))
           (active-minibuffer-window)
           cursor-in-echo-area
           (and (zerop (hash-table-count rs-smtpmail--awaited))
                (or
                 ;; Not `current-idle-time', which stands still after a question.
                 (not (eql seen num-nonmacro-input-events))
                 executing-kbd-macro
                 defining-kbd-macro
                 (> (recursion-depth) 0)
                 isearch-mode
                 (> (length (this-single-command-keys)) 0)
                 (input-pending-p))))))

(defun rs-smtpmail--when-user-is-there (function &optional argument seen)
  "Call FUNCTION with ARGUMENT, now or when the user does not type.
SEEN is for `rs-smtpmail--user-is-there-p'."
  (cond
   ((rs-smtpmail--user-is-there-p seen)
    (rs-smtpmail--guarded "asking" function argument))
   ((rs-smtpmail--somebody-looks-p)
    (run-at-time 0.5 nil #'rs-smtpmail--when-user-is-there
                 function argument num-nonmacro-input-events))
   (t (rs-smtpmail--at-next-frame
       #'rs-smtpmail--when-user-is-there function argument))))

(defun rs-smtpmail--at-next-frame (function &rest arguments)
  "Call FUNCTION with ARGUMENTS soon after the next frame has been made."
  (letrec ((hook (lambda (_frame)
                   (remove-hook 'after-make-frame-functions hook)
                   (apply #'run-at-time 0 nil function arguments))))
    (add-hook 'after-make-frame-functions hook)))

(provide 'rs-smtpmail-ask)

;;; rs-smtpmail-ask.el ends here
