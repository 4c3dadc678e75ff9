;;; sink.el --- The test server as a process of Emacs  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Starts target/release/smtp-sink for the demo and the benchmark.

;;; Code:

(defconst sink-root
  (expand-file-name ".." (file-name-directory (or load-file-name buffer-file-name)))
  "The project's directory.")

(defvar sink-seconds
  (* 60 (string-to-number (or (getenv "RS_SMTPMAIL_TEST_TIMEOUT_SCALE") "1")))
  "How long to wait for anything.")

(defun sink-waiting-messages ()
  "Return what waits in the spool and why, as text."
  (if (not (fboundp 'rs-smtp-queue-list))
      "nothing"
    (mapconcat (lambda (entry)
                 (format "%s for %s: %s" (plist-get entry :state)
                         (mapconcat (lambda (recipient)
                                      (plist-get recipient :address))
                                    (plist-get entry :recipients) ", ")
                         (or (plist-get entry :error) "no trouble so far")))
               (rs-smtp-queue-list) "; ")))

(defun sink-wait (what condition)
  "Wait until CONDITION, a function, returns non-nil, and return that.
WHAT is what is waited for."
  (let ((end (+ (float-time) sink-seconds))
        value)
    (while (not (setq value (funcall condition)))
      (when (> (float-time) end)
        (error "Waited in vain for %s; in the spool: %s" what (sink-waiting-messages)))
      (accept-process-output nil 0.01))
    value))

(defvar sink-ports nil
  "Ports that servers have had so far.")

(defun sink-start (&rest arguments)
  "Start the test server with ARGUMENTS; return its process.
Its port is the property `port'.  No two servers have the same one, for much
is remembered of a server by its port."
  (let ((process (sink-start-process arguments)))
    (if (not (memq (sink-port process) sink-ports))
        (push (sink-port process) sink-ports)
      ;; It is kept until the other has got its port.
      (let ((other (apply #'sink-start arguments)))
        (delete-process process)
        (kill-buffer (process-buffer process))
        (setq process other)))
    process))

(defun sink-start-process (arguments)
  "Start the test server with ARGUMENTS, a list; return its process.
Its port is the property `port'."
  (let* ((process-connection-type nil)
         (process (apply #'start-process "smtp-sink"
                         (generate-new-buffer " *smtp-sink*")
                         (expand-file-name "target/release/smtp-sink"
                                           sink-root)
                         arguments)))
    (set-process-query-on-exit-flag process nil)
    (process-put
     process 'port
     (sink-wait "the test server"
                (lambda ()
                  (with-current-buffer (process-buffer process)
                    (goto-char (point-min))
                    (cond
                     ((re-search-forward "^listening on [^:]*:\\([0-9]+\\)" nil t)
                      (string-to-number (match-string 1)))
                     ((not (process-live-p process))
                      (error "The test server has ended: %s" (buffer-string))))))))
    process))

(defun sink-port (process)
  "Return the port that the server PROCESS listens on."
  (process-get process 'port))

(defun sink-contents (file)
  "Return the text of FILE, with LF line ends."
  (with-temp-buffer
    (insert-file-contents file)
    (goto-char (point-min))
    (while (search-forward "\r\n" nil t)
      (replace-match "\n"))
    (buffer-string)))

(provide 'sink)

;;; sink.el ends here
