;;; test-attention.el --- Who is asked, what C-g stops, and how Emacs is left  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; What only a real terminal, or a real daemon, can show.

;;; Code:

(require 'helper)
(require 'test-terminal)

(defun test-attention-command (form &rest arguments)
  "Return a shell command for an Emacs with ARGUMENTS that evaluates FORM.
FORM is evaluated with the spool and the server of this test."
  (mapconcat #'shell-quote-argument
             `("env" "TERM=xterm-256color" "LC_ALL=C.UTF-8"
               ,(concat "HOME=" test-directory)
               ,(concat "TMPDIR=" test-directory)
               ,(expand-file-name invocation-name invocation-directory)
               "-Q" ,@arguments "-L" ,(expand-file-name "lisp" test-root)
               "--eval" ,(prin1-to-string
                          `(progn
                             (setq inhibit-startup-screen t
                                   user-mail-address "me@example.org"
                                   rs-smtpmail-spool-directory ,rs-smtpmail-spool-directory
                                   gnutls-trustfiles ',gnutls-trustfiles
                                   smtpmail-smtp-server "localhost"
                                   smtpmail-smtp-service ,smtpmail-smtp-service)
                             (require 'rs-smtpmail-engine)
                             ,form)))
             " "))

(defun test-attention-sending (sources)
  "Return a form that sends a mail, with SOURCES for `auth-sources'."
  `(progn
     (setq auth-sources ,sources)
     (with-temp-buffer
       (insert "From: me@example.org\nTo: you@example.com\nSubject: Test\n"
               mail-header-separator "\nHello\n")
       (rs-smtpmail-send-it))))

(defmacro test-with-emacs-in-tmux (form &rest body)
  "Run BODY while an Emacs that has evaluated FORM is in a terminal."
  (declare (indent 1) (debug t))
  `(let ((test-terminal-socket (test-file "tmux")))
     (unwind-protect
         (progn
           (test-tmux "new-session" "-d" "-x" "100" "-y" "24"
                      (test-attention-command ,form "-nw"))
           ,@body)
       (test-tmux "kill-server"))))

(defun test-attention-wait-for-the-end ()
  "Wait until the Emacs in the terminal has ended."
  (sink-wait "the end of Emacs"
             (lambda () (not (string-match-p "windows" (test-tmux "list-sessions"))))))

;;;; Leaving Emacs

(defun test-attention-spoil (how)
  "Return a form that spoils the spool, by HOW: `gone', `file' or `locked'."
  (pcase how
    ('gone '(delete-directory rs-smtpmail-spool-directory t))
    ('file '(progn (delete-directory rs-smtpmail-spool-directory t)
                   (write-region "" nil (directory-file-name rs-smtpmail-spool-directory)
                                 nil 'silent)))
    ('locked '(set-file-modes (expand-file-name "sending" rs-smtpmail-spool-directory) 0))))

(ert-deftest test-attention-leaving-with-a-bad-spool ()
  "Emacs can be left, and it is said what is wrong."
  (let ((smtpmail-smtp-service 25))
    (dolist (how `(gone file ,@(unless (zerop (user-uid)) '(locked))))
      (let ((rs-smtpmail-spool-directory (test-new-directory "spool")))
        (should
         (string-match-p
          "\\`What waits to be sent is not known: .*; leave Emacs\\? left\\'"
          (test-emacs-output
           `(progn
              (require 'rs-smtpmail-engine)
              (rs-smtp-queue-list)
              ,(test-attention-spoil how)
              (setq noninteractive nil)
              (cl-letf (((symbol-function 'y-or-n-p)
                         (lambda (prompt) (princ prompt) t)))
                (when (run-hook-with-args-until-failure 'kill-emacs-query-functions)
                  (princ "left")))
              (setq noninteractive t)
              (kill-emacs 0)))))))))

(ert-deftest test-attention-leaving-a-terminal-with-a-bad-spool ()
  (skip-unless (executable-find "tmux"))
  (let ((smtpmail-smtp-service 25)
        (rs-smtpmail-spool-directory (test-new-directory "spool")))
    (test-with-emacs-in-tmux `(progn (rs-smtpmail-mode)
                                     (rs-smtp-queue-list)
                                     ,(test-attention-spoil 'gone)
                                     (message "Ready"))
      (test-terminal-wait "Ready")
      (test-tmux "send-keys" "C-x" "C-c")
      (test-terminal-wait "leave Emacs\\? (y or n)")
      (test-tmux "send-keys" "y")
      (test-attention-wait-for-the-end))))

;;;; C-g

(ert-deftest test-attention-a-slow-search-is-stopped ()
  "The message is put off, and Emacs is the user's again."
  (skip-unless (executable-find "tmux"))
  (test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass word")
    (let ((rs-smtpmail-spool-directory (test-new-directory "spool"))
          (log (test-file "searches")))
      (test-with-emacs-in-tmux
          `(progn
             (require 'auth-source)
             (add-hook 'auth-source-backend-parser-functions
                       (lambda (source)
                         (when (eq source 'slow)
                           (auth-source-backend
                            :source "" :type 'slow
                            :search-function
                            (lambda (&rest _)
                              (write-region "." nil ,log t 'silent)
                              ;; As a program that asks somewhere else.
                              (call-process "sleep" nil nil nil "1000"))))))
             ,(test-attention-sending ''(slow)))
        (sink-wait "the search" (lambda () (file-exists-p log)))
        (test-tmux "send-keys" "C-g")
        (test-terminal-wait "You have stopped the search for the password")
        (test-tmux "send-keys" "M-:" "(plist-get (car (rs-smtp-queue-list)) :state)" "Enter")
        (test-terminal-wait "^pending")
        (should (equal "." (test-bytes log)))))))

;;;; A daemon

(defun test-attention-client (&rest arguments)
  "Return a shell command that calls emacsclient with ARGUMENTS."
  (mapconcat #'shell-quote-argument
             `("env" "TERM=xterm-256color" "LC_ALL=C.UTF-8"
               ,(expand-file-name "emacsclient" invocation-directory)
               "-s" ,(expand-file-name "daemon" test-directory)
               ,@arguments)
             " "))

(ert-deftest test-attention-a-daemon-without-frames-asks-nothing ()
  "It does when a client has given it one."
  (skip-unless (executable-find "tmux"))
  (skip-unless (file-exists-p (expand-file-name "emacsclient" invocation-directory)))
  (test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass word")
    (let* ((rs-smtpmail-spool-directory (test-new-directory "spool"))
           (test-terminal-socket (test-file "tmux"))
           (evaluate (lambda (form)
                       (string-trim
                        (shell-command-to-string
                         (test-attention-client "-e" (prin1-to-string form))))))
           (daemon
            (start-process-shell-command
             "daemon" nil
             (concat "exec "
                     (test-attention-command
                      (test-attention-sending `'((:source ,(test-file "authinfo")
                                                      :host "localhost")))
                      (concat "--fg-daemon=" (expand-file-name "daemon" test-directory)))))))
      (set-process-query-on-exit-flag daemon nil)
      (unwind-protect
          (progn
            (sink-wait "the daemon"
                       (lambda () (file-exists-p (expand-file-name "daemon" test-directory))))
            (sink-wait "a message that needs credentials"
                       (lambda ()
                         (equal "(needs-credentials)"
                                (funcall evaluate
                                         '(mapcar (lambda (entry) (plist-get entry :state))
                                                  (rs-smtp-queue-list))))))
            ;; The question waits for a frame, and nothing else.
            (sink-wait "the waiting question"
                       (lambda ()
                         (equal "1" (funcall evaluate '(length after-make-frame-functions)))))
            (should (equal "nil" (funcall evaluate '(active-minibuffer-window))))
            (test-tmux "new-session" "-d" "-x" "100" "-y" "24"
                       (test-attention-client "-nw" "-e" "(switch-to-buffer \"*scratch*\")"))
            (test-terminal-wait "SMTP user name for localhost")
            (test-tmux "send-keys" "joe" "Enter")
            (test-terminal-wait "SMTP password for joe@localhost")
            (test-tmux "send-keys" "pass word" "Enter")
            (should (equal "joe" (plist-get (test-received 1) :user))))
        (test-tmux "kill-server")
        (delete-process daemon)))))

(provide 'test-attention)

;;; test-attention.el ends here
