;;; helper.el --- What the suites share  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Everything is in one temporary directory, HOME included, and so are those of
;; other Emacsen that are started from here: some are killed.  The engine is
;; started once in a process, so that the tests share a spool, and each leaves
;; it empty; a test that needs its own runs in an Emacs of its own.

;;; Code:

(require 'cl-lib)
(require 'ert)
(require 'ert-x)
(require 'json)

(defconst test-root
  (expand-file-name "../.." (file-name-directory (or load-file-name buffer-file-name)))
  "The project's directory.")

(load (expand-file-name "tests/sink" test-root) nil t)

(defconst test-directory
  (file-name-as-directory (make-temp-file "rs-smtpmail-test" t))
  "The directory for everything.")

(add-hook 'kill-emacs-hook (lambda () (delete-directory test-directory t)))
(setenv "HOME" test-directory)
(setenv "TMPDIR" test-directory)
(setenv "SMTPSERVER")
(setenv "GNUPGHOME")
(setq user-emacs-directory (expand-file-name ".emacs.d/" test-directory)
      temporary-file-directory test-directory
      abbreviated-home-dir nil
      default-directory test-directory)

;; Compilers in the background would write into the directory until it goes.
(defconst test-no-native-compilation
  '(setq native-comp-deferred-compilation nil ; Emacs 28
         native-comp-jit-compilation nil)
  "The form that keeps Emacs from compiling what it loads to native code.")

(eval test-no-native-compilation t)

(require 'gnutls)
(require 'message)
(require 'sendmail)
(require 'smtpmail)
(require 'rs-smtpmail)

;; Nobody is there to be asked.
(defvar rs-smtpmail--ask-idle-seconds 1e6)

(setq rs-smtpmail-spool-directory (expand-file-name "spool/" test-directory)
      auth-sources nil
      auth-source-save-behavior nil
      create-lockfiles nil
      mail-aliases nil
      mail-interactive nil
      mail-personal-alias-file (expand-file-name "mailrc" test-directory)
      message-auto-save-directory nil
      message-confirm-send nil
      message-interactive nil
      message-required-mail-headers '(From Date Message-ID)
      network-security-level 'low
      ;; Each further attempt would cost a second.
      smtpmail-retries 1
      user-full-name "Me"
      user-mail-address "me@example.org")

;;;; Servers

(defvar test-server nil "The server's process.")
(defvar test-mailbox nil "The directory in which the server keeps what it gets.")
(defvar test-counter 0 "Number of names made so far.")

(defun test-file (name)
  "Return a new file name that starts with NAME."
  (expand-file-name (format "%s-%d" name (cl-incf test-counter)) test-directory))

(defun test-new-directory (name)
  "Make a directory whose name starts with NAME."
  (let ((directory (file-name-as-directory (test-file name))))
    (make-directory directory)
    directory))

(defun test-script (&rest rules)
  "Return arguments for a server that follows RULES, plists."
  (let ((file (test-file "script")))
    (with-temp-file file
      (insert (json-encode (vconcat rules))))
    (list "--script" file)))

(defmacro test-with-server (arguments &rest body)
  "Run BODY with smtpmail's options set for a server started with ARGUMENTS."
  (declare (indent 1) (debug t))
  `(test-call-with-server ,arguments (lambda () ,@body)))

(defvar test-foreign-connections nil
  "Numbers of the connections to the server that are not ours.")

(defun test-call-with-server (arguments function)
  "Call FUNCTION with smtpmail's options set for a server with ARGUMENTS.
Afterwards, empty the spool of what is for this server."
  (let* ((test-mailbox (test-new-directory "mailbox"))
         (ca (test-file "ca"))
         (test-server (apply #'sink-start "--dir" test-mailbox "--ca" ca arguments))
         (smtpmail-smtp-server "localhost")
         (smtpmail-smtp-service (sink-port test-server))
         (smtpmail-stream-type nil)
         (smtpmail-queue-dir (test-file "queue"))
         (gnutls-trustfiles (list ca))
         (test-foreign-connections nil)
         (warning-minimum-log-level :emergency))
    (unwind-protect
        (prog1 (funcall function)
          (test-no-violations))
      (delete-process test-server)
      (kill-buffer (process-buffer test-server))
      (test-empty-spool))))

(defun test-no-violations ()
  "Fail if the server has seen us break the protocol."
  (let ((statistics (expand-file-name "stats.json" test-mailbox)))
    (when (file-exists-p statistics)
      (should-not
       (seq-remove (lambda (violation)
                     (memq (alist-get 'connection violation)
                           test-foreign-connections))
                   (alist-get 'violations
                              (json-parse-string (test-bytes statistics)
                                                 :object-type 'alist)))))))

(defun test-empty-spool ()
  "Delete the spool's entries for the current server."
  (when (featurep 'rs-smtpmail-module)
    (sink-wait "an empty spool"
               (lambda ()
                 (null (mapcar (lambda (entry)
                                 (ignore-errors
                                   (rs-smtp-queue-remove (plist-get entry :id)))
                                 entry)
                               (seq-filter
                                (lambda (entry)
                                  (equal smtpmail-smtp-service
                                         (plist-get (plist-get entry :server)
                                                    :port)))
                                (rs-smtp-queue-list))))))
    ;; What is still told of it concerns nobody any more.
    (rs-smtpmail--wake)
    (let ((rs-smtpmail-sent-functions nil)
          (rs-smtpmail-failed-functions nil)
          (inhibit-message t))
      (rs-smtpmail--handle-events))))

(defun test-bytes (file)
  "Return the bytes of FILE."
  (with-temp-buffer
    (set-buffer-multibyte nil)
    (insert-file-contents-literally file)
    (buffer-string)))

(defun test-received (number)
  "Wait for message NUMBER at the server and return it.
The value is a plist with :sender, :recipients, :bytes, :helo, :user, :tls,
and :parameters, those of MAIL."
  (let* ((base (expand-file-name (format "%04d" number) test-mailbox))
         (json (concat base ".json")))
    (sink-wait (format "message %d" number) (lambda () (file-exists-p json)))
    (let ((record (json-parse-string (test-bytes json)
                                     :object-type 'alist :null-object nil)))
      (list :sender (alist-get 'sender record)
            :recipients (mapcar (lambda (one) (alist-get 'address one))
                                (alist-get 'recipients record))
            :helo (alist-get 'helo record)
            :user (alist-get 'user record)
            :tls (alist-get 'tls record)
            :parameters (append (alist-get 'mail_parameters record) nil)
            :bytes (test-bytes (concat base ".eml"))))))

(defun test-received-count ()
  "Return how many messages the server has."
  (length (directory-files test-mailbox nil "\\.eml\\'")))

;;;; Mails

(defconst test-headers
  '("From: Me <me@example.org>" "To: you@example.com" "Subject: Test"
    "Message-ID: <fixed@example.org>" "Date: Sat, 01 Nov 2025 12:00:00 +0000")
  "A header with nothing left to be generated.")

(defun test-header (&rest fields)
  "Return `test-headers' with FIELDS instead of those of the same name.
A field that ends in a colon is left out."
  (let* ((name (lambda (field) (downcase (car (split-string field "[ \t]*:")))))
         (replaced (mapcar name fields)))
    (append (cl-remove-if (lambda (field) (member (funcall name field) replaced))
                          test-headers)
            (cl-remove-if (lambda (field) (string-suffix-p ":" field)) fields))))

(defun test-insert-mail (header body)
  "Insert a mail, as composed, with HEADER, a list of lines, and BODY."
  (insert (mapconcat (lambda (line) (concat line "\n")) header "")
          mail-header-separator "\n" body))

(defun test-send (send header &optional body mode)
  "Send a mail of HEADER and BODY by the function SEND, composed in MODE."
  (with-temp-buffer
    (funcall (or mode #'mail-mode))
    (erase-buffer)
    (test-insert-mail header (or body "Hello\n"))
    (if (eq mode #'message-mode)
        (let ((message-send-mail-function send))
          (message-send))
      (funcall send))))

(defun test-send-synchronously (header &optional body mode)
  "Send a mail of HEADER and BODY, composed in MODE, and wait."
  (let ((rs-smtpmail-synchronous t))
    (test-send #'rs-smtpmail-send-it header body mode)))

(defun test-error (function &rest arguments)
  "Return the message of the error that FUNCTION with ARGUMENTS must signal."
  (error-message-string
   (should-error (apply function arguments))))

(defun test-states ()
  "Return the states of the spool's entries."
  (mapcar (lambda (entry) (plist-get entry :state)) (rs-smtp-queue-list)))

(defun test-wait-for-state (&rest states)
  "Wait until the spool's entries are in STATES."
  (sink-wait (format "entries in the states %S" states)
             (lambda () (equal (test-states) states))))

(defmacro test-with-warnings (&rest body)
  "Run BODY; return the texts of the warnings shown."
  (declare (indent 0) (debug t))
  `(let (warnings)
     (cl-letf (((symbol-function 'display-warning)
                (lambda (_type text &rest _) (push text warnings))))
       ,@body)
     (nreverse warnings)))

;;;; Token endpoints

(defun test-token-endpoint (answer)
  "Start a token endpoint of OAuth 2; return its process.
ANSWER is a function that gets a request's form and returns (STATUS . JSON)."
  (make-network-process
   :name "token-endpoint" :server t :host 'local :service t :noquery t
   :coding 'no-conversion
   :filter (lambda (process text)
             (let ((request (concat (process-get process 'request) text)))
               (process-put process 'request request)
               ;; The form's last field is there.
               (when (string-match "\r\n\r\n\\(.*client_secret=.*\\)" request)
                 (pcase-let ((`(,status . ,json)
                              (funcall answer (match-string 1 request))))
                   (process-send-string
                    process
                    (format "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s"
                            status (string-bytes json) json))))))))

;;;; Other Emacs processes

(defun test-emacs (form &optional arguments)
  "Start an Emacs that evaluates FORM; ARGUMENTS come first.
FORM may use the variables of smtpmail and of this package as they are here."
  (let* ((file (concat (test-file "form") ".el"))
         (process-connection-type nil)
         (settings
          (mapcan (lambda (variable)
                    (list variable (list 'quote (symbol-value variable))))
                  '(rs-smtpmail-spool-directory smtpmail-smtp-server
                    smtpmail-smtp-service smtpmail-stream-type
                    smtpmail-queue-dir gnutls-trustfiles auth-sources
                    user-mail-address user-full-name
                    rs-smtpmail-reply-timeout))))
    (with-temp-file file
      (let ((print-escape-nonascii t))
        (prin1 `(progn (require 'gnutls) (require 'smtpmail) (require 'sendmail)
                       (setq ,@settings)
                       ,form)
               (current-buffer))))
    (make-process :name "emacs" :noquery t :sentinel #'ignore
                  :buffer (generate-new-buffer " *child*")
                  :command `(,(expand-file-name invocation-name invocation-directory)
                             "-Q" "--batch"
                             "--eval" ,(prin1-to-string test-no-native-compilation)
                             ,@arguments
                             "-L" ,(expand-file-name "lisp" test-root)
                             "-L" ,(expand-file-name "tests/lisp" test-root)
                             "-l" ,file))))

(defun test-finish (process)
  "Wait for the end of PROCESS; return its exit status and its output."
  (sink-wait "the end of the other Emacs" (lambda () (not (process-live-p process))))
  (accept-process-output process 0)
  (prog1 (cons (process-exit-status process)
               (with-current-buffer (process-buffer process)
                 (buffer-string)))
    (kill-buffer (process-buffer process))))

(defun test-emacs-output (form &optional arguments)
  "Evaluate FORM in another Emacs, with ARGUMENTS, that must end well.
Return what it printed."
  (let ((result (test-finish (test-emacs form arguments))))
    (ert-info ((cdr result) :prefix "Output: ")
      (should (eq 0 (car result))))
    (cdr result)))

(provide 'helper)

;;; helper.el ends here
