;;; test-terminal.el --- The outbox in a real terminal  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; An Emacs of its own runs in tmux, and what is on the screen is looked at.

;;; Code:

(require 'helper)

(defvar test-terminal-socket nil "The socket of the tmux server.")

(defun test-tmux (&rest arguments)
  "Call tmux with ARGUMENTS; return its output."
  (with-temp-buffer
    (let ((coding-system-for-read 'utf-8))
      (apply #'call-process "tmux" nil t nil
             "-u" "-f" "/dev/null" "-S" test-terminal-socket arguments))
    (buffer-string)))

(defun test-terminal-wait (text)
  "Wait until TEXT, a regexp, is on a finished screen; return the screen's lines."
  (let (screen)
    (condition-case nil
        (sink-wait text (lambda ()
                          (let ((before screen))
                            (setq screen (test-tmux "capture-pane" "-p"))
                            (and (equal screen before)
                                 (string-match-p text screen)))))
      (error (ert-fail (format "%S is not on the screen:\n%s" text screen))))
    (split-string screen "\n")))

(defmacro test-with-terminal (width background &rest body)
  "Run BODY while an Emacs shows the outbox in a terminal.
The terminal is WIDTH characters wide and has BACKGROUND, `light' or `dark'."
  (declare (indent 2) (debug t))
  `(let ((test-terminal-socket (test-file "tmux")))
     (unwind-protect
         (progn
           (test-tmux "new-session" "-d" "-x" (number-to-string ,width) "-y" "24"
                      (test-terminal-command ',background))
           ,@body)
       (test-tmux "kill-server"))))

(defun test-terminal-command (background)
  "Return the command that shows the outbox on BACKGROUND."
  (let ((form `(progn
                 (setq inhibit-startup-screen t
                       rs-smtpmail-spool-directory ,rs-smtpmail-spool-directory
                       frame-background-mode ',background)
                 (frame-set-background-mode (selected-frame))
                 (require 'rs-smtpmail)
                 (rs-smtpmail-outbox)
                 (delete-other-windows))))
    (mapconcat #'shell-quote-argument
               (list "env" "TERM=xterm-256color" "LC_ALL=C.UTF-8"
                     (expand-file-name invocation-name invocation-directory)
                     "-Q" "-nw" "-L" (expand-file-name "lisp" test-root)
                     "--eval" (prin1-to-string form))
               " ")))

(defun test-terminal-rows (lines)
  "Return the rows of the outbox in LINES, a screen."
  (seq-filter (lambda (line) (string-match-p "\\`[* ] [a-z]" line)) lines))

(defun test-terminal-check-columns (lines width)
  "Fail if the columns in LINES, a screen WIDTH wide, are not aligned."
  (let* ((header (seq-find (lambda (line) (string-match-p "Last reply" line)) lines))
         (starts (mapcar (lambda (name) (string-match name header))
                         '("State" "To " "Subject" "Last reply"))))
    (dolist (row (test-terminal-rows lines))
      (should (<= (string-width row) width))
      (dolist (start starts)
        ;; A wide character takes two columns, but is one.
        (let ((wide (- (string-width row) (length row))))
          (when (> (length row) (- start wide))
            (should (string-match-p "\\` [^ ]"
                                    (substring row (- start wide 1))))))))))

(defun test-terminal-add (subject to)
  "Put a message with SUBJECT for TO, for tomorrow, into the spool.
Return its id."
  (rs-smtp-send (format "From: me@example.org\nTo: %s\nSubject: %s\n\nHello\n"
                        to subject)
                "me@example.org" (list to)
                (list :host "localhost" :port smtpmail-smtp-service)
                nil (list :not-before (+ (float-time) 86300))))

(defun test-terminal-spool (count)
  "Return the name of a new spool with COUNT messages, user0's to the last one's."
  (let* ((id (test-terminal-add "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?= from user0" "user0@lists.example.com"))
         (original (expand-file-name (concat "queue/" id) rs-smtpmail-spool-directory))
         (entry (test-bytes original))
         (spool (test-new-directory "many")))
    (set-file-modes spool #o700)
    ;; To send each would take long: the spool goes to the disk each time.
    (dotimes (number count)
      (let* ((new (format "%s%012x" (substring id 0 24) number))
             (file (expand-file-name (concat "queue/" new) spool)))
        (make-directory (file-name-directory file) t)
        (string-match "{\"version\"" entry)
        (let ((coding-system-for-write 'no-conversion)
              (start (match-beginning 0)))
          ;; The message stays as it is.
          (write-region (concat (substring entry 0 start)
                                (string-replace
                                 "user0" (format "user%d" number)
                                 (string-replace id new (substring entry start))))
                        nil file nil 'silent))))
    spool))

(ert-deftest test-terminal-empty ()
  (skip-unless (executable-find "tmux"))
  (test-with-server nil
    (test-with-terminal 80 dark
      (let ((lines (test-terminal-wait "^No mail waits here")))
        (should (string-match-p "\\` +State +Age To +Subject +Size Try +Next Last reply"
                                (nth 1 lines)))))))

(ert-deftest test-terminal-one ()
  (skip-unless (executable-find "tmux"))
  (test-with-server (test-script '(:stage "rcpt" :reply "550 5.1.1 No such user"))
    (rs-smtp-send "From: me@example.org\nTo: you@example.com\nSubject: Hello\n\nHello\n"
                  "me@example.org" '("you@example.com")
                  (list :host "localhost" :port smtpmail-smtp-service))
    (test-wait-for-state 'failed)
    (dolist (background '(light dark))
      (test-with-terminal 120 background
        (let ((lines (test-terminal-wait "^  failed .*you@example.com .*550 5.1.1 No such user")))
          (test-terminal-check-columns lines 120))
        ;; In a face of its own, readable on either background.
        (should (string-match-p "\e\\[1m\e\\[38;5;[0-9]+mfailed\\|\e\\[1m\e\\[[39]1mfailed"
                                (test-tmux "capture-pane" "-p" "-e")))))))

(ert-deftest test-terminal-many ()
  (skip-unless (executable-find "tmux"))
  (test-with-server nil
    (let ((rs-smtpmail-spool-directory (test-terminal-spool 500)))
      (test-with-terminal 80 light
        (let ((lines (test-terminal-wait "^  scheduled .*user15")))
          (test-terminal-check-columns lines 80)
          (should (<= 16 (length (test-terminal-rows lines)))))
        ;; It makes use of a wider terminal.
        (test-tmux "resize-window" "-x" "120")
        (test-terminal-check-columns
         (test-terminal-wait "user15@lists.example.com +Grüße from user15 +[0-9]+ ")
         120)
        (test-tmux "send-keys" "M->" "C-p" "m")
        (test-terminal-wait "^\\* scheduled .*user499@")))))

(provide 'test-terminal)

;;; test-terminal.el ends here
