;;; clients.el --- What the suites about mail clients share  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Each test is for a cell of the table of clients and features, which
;; tests/matrix makes of the runs on several versions of Emacs.

;;; Code:

(require 'helper)

;;;; The table

(defconst test-client-features
  '("Send" "Failure" "Bcc" "Copy" "Account" "Resend" "Queue" "Flush" "Draft")
  "The columns of the table.")

(defvar test-client-versions nil
  "Alist from clients that are no part of Emacs to their versions.")

(defmacro test-client (name cell &rest body)
  "Define the test NAME with BODY, for CELL, a list of client and feature."
  (declare (indent 2) (debug (&define symbolp sexp def-body)))
  (cl-assert (member (cadr cell) test-client-features))
  `(progn
     (put ',name 'test-client-cell ',cell)
     (ert-deftest ,name () ,@body)))

(defun test-client-results ()
  "Return the outcome of the tests that ran, a list of (CLIENT FEATURE PASSED).
Those that were skipped are not in it."
  (delq nil
        (mapcar (lambda (test)
                  (let ((result (ert-test-most-recent-result test))
                        (cell (get (ert-test-name test) 'test-client-cell)))
                    (and cell result
                         (not (ert-test-skipped-p result))
                         (append cell (list (ert-test-passed-p result))))))
                (ert-select-tests t t))))

(defun test-client-need (client program)
  "Load CLIENT, a feature of a package, which needs PROGRAM; or skip the test.
In CI its absence is a failure."
  (dolist (directory (file-expand-wildcards
                      (format "/usr/share/emacs/site-lisp/elpa/%s-[0-9]*" client)))
    (add-to-list 'load-path directory))
  (let ((there (and (executable-find program) (require client nil t))))
    (unless (or there (getenv "CI"))
      (message "Not run: there is no %s here" client)
      (ert-skip (format "There is no %s here" client)))
    (should there)))

;;;; Ways to send

(defmacro test-with-mode (&rest body)
  "Run BODY with `rs-smtpmail-mode' on, and everything set for smtpmail."
  (declare (indent 0) (debug t))
  `(let ((send-mail-function #'smtpmail-send-it)
         (message-send-mail-function #'message-use-send-mail-function)
         (rs-smtpmail-synchronous nil))
     (rs-smtpmail-mode 1)
     (unwind-protect
         (progn ,@body)
       (rs-smtpmail-mode -1))))

(defmacro test-each-way (&rest body)
  "Run BODY by the mode and by the function, each with a server of its own."
  (declare (indent 0) (debug t))
  (let ((function (make-symbol "function")))
    `(let ((,function (lambda () ,@body)))
       (ert-info ("rs-smtpmail-mode")
         (test-with-server nil
           (test-with-mode (funcall ,function))))
       (ert-info ("rs-smtpmail-send-it")
         (test-with-server nil
           (let ((send-mail-function #'rs-smtpmail-send-it)
                 (message-send-mail-function #'rs-smtpmail-send-it)
                 (rs-smtpmail-synchronous nil))
             (funcall ,function)))))))

(defmacro test-with-refusal (&rest body)
  "Run BODY with the mode on, sending synchronously to a server that refuses all."
  (declare (indent 0) (debug t))
  `(test-with-server (test-script '(:stage "rcpt" :reply "550 5.1.1 No such user"))
     (test-with-mode
       (let ((rs-smtpmail-synchronous t))
         ,@body))))

(defmacro test-refused (&rest body)
  "Run BODY, which must fail because the server refuses the mail.
The mail must be in the spool then, with that reason."
  (declare (indent 0) (debug t))
  `(progn
     (should (string-search "550 5.1.1 No such user"
                            (error-message-string (should-error (progn ,@body)))))
     (should (= 0 (test-received-count)))
     (should (equal '(failed) (test-states)))))

(defun test-arrived (number recipients &rest parts)
  "Wait for message NUMBER, which must be for RECIPIENTS and have PARTS in it.
Then nothing may be left in the spool.  Return the message."
  (let ((received (test-received number)))
    (should (equal recipients (plist-get received :recipients)))
    (should (equal "me@example.org" (plist-get received :sender)))
    (dolist (part parts)
      (should (string-search part (plist-get received :bytes))))
    (test-wait-for-state)
    received))

(defun test-lacks (received &rest parts)
  "Check that none of PARTS is in the bytes of the message RECEIVED."
  (dolist (part parts)
    (should-not (string-search part (plist-get received :bytes)))))

(defun test-queued ()
  "Return the number of lines in the index of smtpmail's queue, as mu4e does."
  (let ((index (expand-file-name smtpmail-queue-index-file smtpmail-queue-dir)))
    (if (file-exists-p index)
        (with-temp-buffer
          (insert-file-contents index)
          (count-lines (point-min) (point-max)))
      0)))

(defmacro test-queue-and-flush (&rest body)
  "Run BODY, which sends one mail, while mail is queued; then send the queue.
Without the mode, so that the mode is seen to change nothing in the format."
  (declare (indent 0) (debug t))
  `(progn
     (let ((smtpmail-queue-mail t))
       ,@body)
     (should (= 1 (test-queued)))
     (should (= 0 (test-received-count)))
     (should-not (test-states))
     (smtpmail-send-queued-mail)
     (should (= 0 (test-queued)))))

;;;; Composing

(defmacro test-with-composed (buffer form &rest body)
  "Run BODY in the buffer BUFFER that FORM composes a mail in; then kill it."
  (declare (indent 2) (debug t))
  `(save-window-excursion
     ,form
     (let ((,buffer (current-buffer)))
       (unwind-protect
           ,(macroexp-progn body)
         (when (buffer-live-p ,buffer)
           (with-current-buffer ,buffer
             (set-buffer-modified-p nil))
           (kill-buffer ,buffer))))))

;;;; Maildirs

(defvar test-maildir nil "The mails of a client under test.")

(defun test-new-maildir ()
  "Make a maildir with one mail in its inbox; return its name."
  (let ((maildir (test-new-directory "Maildir")))
    (dolist (folder '("inbox" "drafts" "sent" "trash"))
      (dolist (part '("cur" "new" "tmp"))
        (make-directory (expand-file-name (concat folder "/" part) maildir) t)))
    (write-region (concat "From: Friend <friend@example.net>\n"
                          "To: me@example.org\nSubject: Old\n"
                          "Message-ID: <old@example.net>\n"
                          "Date: Sat, 01 Nov 2025 12:00:00 +0000\n\nHello\n")
                  nil (expand-file-name "inbox/cur/1:2,S" maildir) nil 'silent)
    maildir))

(defun test-client-folder (folder)
  "Return the texts of the mails in FOLDER of the maildir."
  (mapcan (lambda (part)
            (mapcar #'test-bytes
                    (directory-files
                     (expand-file-name (concat folder "/" part) test-maildir)
                     t "\\`[^.]")))
          (list "cur" "new")))

(defun test-client-run (program &rest arguments)
  "Run PROGRAM with ARGUMENTS, which must end well."
  (with-temp-buffer
    (let ((status (apply #'call-process program nil t nil arguments)))
      (ert-info ((buffer-string) :prefix (concat program ": "))
        (should (eq 0 status))))))

(provide 'clients)

;;; clients.el ends here
