;;; test-soak.el --- Killed Emacsen, restarted servers, shared spools  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; What is killed when is random, after a seed that is printed and can be given as
;; RS_SMTPMAIL_TEST_SEED; nothing depends on how fast anything is.

;;; Code:

(require 'helper)

(defconst test-soak-messages 1000 "How many messages are sent.")
(defconst test-soak-kills 50 "How often an Emacs is killed.")
(defconst test-soak-restarts 20 "How often the server is killed and started again.")

(defvar test-soak-mailboxes nil "The directories of the servers so far.")

(defun test-soak-start-server (port)
  "Start a server on PORT, or on a free port if that is 0; return its process."
  (let ((mailbox (test-new-directory "mailbox")))
    (push mailbox test-soak-mailboxes)
    (if (zerop port)
        (sink-start "--dir" mailbox)
      (sink-start-process
       (list "--dir" mailbox "--port" (number-to-string port))))))

(defun test-soak-files (suffix)
  "Return the files in all mailboxes whose names end in SUFFIX."
  (mapcan (lambda (mailbox)
            (directory-files mailbox t (concat "\\`[0-9]+" (regexp-quote suffix) "\\'")))
          (copy-sequence test-soak-mailboxes)))

(defun test-soak-count ()
  "Return how many messages have arrived so far."
  (length (test-soak-files ".json")))

(defun test-soak-arrivals ()
  "Return a hash table from addresses to how often something arrived for them."
  (let ((arrivals (make-hash-table :test #'equal)))
    (dolist (file (test-soak-files ".json") arrivals)
      (let ((record (json-parse-string (test-bytes file) :object-type 'alist)))
        (mapc (lambda (recipient)
                (cl-incf (gethash (alist-get 'address recipient) arrivals 0)))
              (alist-get 'recipients record))))))

(defun test-soak-fill-spool (from to)
  "Put messages numbered FROM to TO into the spool of other processes.
Nothing is sent.  Return how many are there."
  (test-emacs-output
   `(progn
      (require 'rs-smtpmail)
      (defun rs-smtpmail--warn (&rest _))
      (dolist (number (number-sequence ,from ,(1- to)))
        (rs-smtp-send (format "Subject: %d\n\nHello\n" number) "me@example.org"
                      (list (format "to-%d@example.com" number))
                      (list :host "localhost" :port smtpmail-smtp-service)
                      nil (list :not-before (time-add nil 86400))))
      (princ (length (rs-smtp-queue-list))))))

(defun test-soak-flush (shown)
  "Start an Emacs that sends all that is in the spool.
It writes to the file SHOWN whom the unconfirmed messages are for that it
sends again."
  (test-emacs
   `(progn
      (require 'rs-smtpmail)
      (defun rs-smtpmail--warn (&rest _))
      (defun entries (&rest states)
        (seq-filter (lambda (entry) (memq (plist-get entry :state) states))
                    (rs-smtp-queue-list)))
      (while (entries 'scheduled 'pending 'sending 'unconfirmed)
        (dolist (entry (entries 'scheduled))
          (ignore-error rs-smtp-error
            (rs-smtp-queue-schedule (plist-get entry :id) nil)))
        (dolist (entry (entries 'unconfirmed))
          (write-region (concat (plist-get (car (plist-get entry :recipients)) :address)
                                "\n")
                        nil ,shown t 'silent)
          (ignore-error rs-smtp-error
            (rs-smtp-queue-retry (plist-get entry :id))))
        (rs-smtp-queue-flush)
        (accept-process-output nil 0.1)))))

(ert-deftest test-soak-kills-and-restarts ()
  "Every message arrives, and twice only what was shown as unconfirmed."
  (let* ((seed (or (getenv "RS_SMTPMAIL_TEST_SEED") (number-to-string (emacs-pid))))
         (test-soak-mailboxes nil)
         (server (test-soak-start-server 0))
         (smtpmail-smtp-service (sink-port server))
         (rs-smtpmail-spool-directory (test-new-directory "spool"))
         (shown (test-file "shown"))
         (total test-soak-messages)
         (restarts 0))
    (random seed)
    (ert-info (seed :prefix "Seed: ")
      (signal-process server 'SIGKILL)
      (write-region "" nil shown nil 'silent)
      (should (equal (number-to-string total) (test-soak-fill-spool 0 total)))
      (setq server (test-soak-start-server smtpmail-smtp-service))
      (dotimes (kill test-soak-kills)
        ;; Where this process is slow, more is sent between two kills.
        (when (< (- total (test-soak-count)) 100)
          (test-soak-fill-spool total (+ total 200))
          (cl-incf total 200))
        (let ((emacs (test-soak-flush shown)))
          (cl-flet ((wait-for-some ()
                      (let ((enough (+ (test-soak-count) 1 (random 8))))
                        (sink-wait "messages"
                                   (lambda () (or (>= (test-soak-count) enough)
                                                  (not (process-live-p emacs))))))))
            (wait-for-some)
            (when (< restarts (* (1+ kill) (/ (float test-soak-restarts) test-soak-kills)))
              (signal-process server 'SIGKILL)
              (sink-wait "the server's end" (lambda () (not (process-live-p server))))
              (setq server (test-soak-start-server smtpmail-smtp-service))
              (cl-incf restarts)
              (wait-for-some))
            (should (process-live-p emacs))
            (signal-process emacs 'SIGKILL)
            (test-finish emacs))))
      (should (= restarts test-soak-restarts))
      (let ((result (test-finish (test-soak-flush shown))))
        (ert-info ((cdr result) :prefix "Output: ")
          (should (eq 0 (car result)))))
      (signal-process server 'SIGKILL)
      (let ((arrivals (test-soak-arrivals))
            (asked-about (split-string (test-bytes shown) "\n" t))
            lost doubled)
        (dotimes (number total)
          (let ((address (format "to-%d@example.com" number)))
            (pcase (gethash address arrivals 0)
              (0 (push address lost))
              (1)
              (_ (unless (member address asked-about)
                   (push address doubled))))))
        (should-not lost)
        (should-not doubled)
        (message "%d messages arrived %d times; %d were shown as unconfirmed"
                 total (test-soak-count)
                 (length (delete-dups asked-about)))))))

(ert-deftest test-soak-two-emacsen ()
  "Two that send the same spool at the same time send each message once."
  (let* ((test-soak-mailboxes nil)
         (server (test-soak-start-server 0))
         (smtpmail-smtp-service (sink-port server))
         (rs-smtpmail-spool-directory (test-new-directory "spool"))
         (shown (test-file "shown")))
    (signal-process server 'SIGKILL)
    (should (equal (number-to-string test-soak-messages)
                   (test-soak-fill-spool 0 test-soak-messages)))
    (setq server (test-soak-start-server smtpmail-smtp-service))
    (let ((both (list (test-soak-flush shown) (test-soak-flush shown))))
      (dolist (emacs both)
        (let ((result (test-finish emacs)))
          (ert-info ((cdr result) :prefix "Output: ")
            (should (eq 0 (car result)))))))
    (delete-process server)
    (let ((arrivals (test-soak-arrivals)))
      (should (= test-soak-messages (hash-table-count arrivals)))
      (should (= test-soak-messages (test-soak-count))))
    (should-not (file-exists-p shown))))

(provide 'test-soak)

;;; test-soak.el ends here
