;;; rs-smtpmail-oauth2.el --- OAuth 2 access tokens from Lisp or a command  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The engine asks here for an access token before it searches
;; `auth-sources', if one of these options is set.  What it finds in entries
;; with a refresh token it does by itself.

;;; Code:

(require 'rs-smtpmail)
(require 'rs-smtpmail-ask)
(require 'subr-x)

(declare-function rs-smtpmail--answer "rs-smtpmail-auth")

;;;; Customization

(defcustom rs-smtpmail-oauth2-token-function nil
  "Function that returns an OAuth 2 access token, or nil for none.
It is called with the user, that is `smtpmail-smtp-user' or else
`user-mail-address', and the server's name, at each login.  After nil
`rs-smtpmail-oauth2-token-command' is tried, and then `auth-sources'.
Emacs waits for the function: something slow had better be a command."
  :type '(choice (const :tag "None" nil) function)
  :risky t
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-oauth2-token-command nil
  "Command whose first line of output is an OAuth 2 access token.
A string is for the shell; a list of strings is a program and its
arguments.  In both %u stands for the user, that is `smtpmail-smtp-user'
or else `user-mail-address', and %h for the server's name.

Or an alist of such commands by user or server; where it names neither,
`auth-sources' are searched.  The command is run at each login."
  :type (let ((command '(choice (string :tag "Shell command")
                                (repeat :tag "Program and arguments" string))))
          `(choice (const :tag "None" nil)
                   ,@(cdr command)
                   (alist :tag "By user or server"
                          :key-type (string :tag "User or server")
                          :value-type ,command)))
  :risky t
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

;;;; Internal variables

(defconst rs-smtpmail-oauth2--patience 300
  "Seconds after which a command that gives no token is killed.")

(defconst rs-smtpmail-oauth2--longest 500
  "Characters of a command's complaint that are shown.")

;;;; Tokens

(defun rs-smtpmail--answer-token (event)
  "Answer EVENT, by which the engine asks for an access token."
  (let ((user (or (plist-get event :user) user-mail-address))
        (host (plist-get event :host))
        (answer (lambda (answer) (rs-smtpmail--answer event answer))))
    (condition-case err
        (let ((token (rs-smtpmail-oauth2--by-function user host)))
          (if token
              (funcall answer (list :user user :secret token))
            (rs-smtpmail-oauth2--by-command user host answer)))
      (quit
       (funcall answer (list :later (format "You have stopped the search for an access token for %s at %s"
                                            user host))))
      (error
       (funcall answer (list :error (format "No access token for %s at %s: %s"
                                            user host
                                            (error-message-string err))))))))

(defun rs-smtpmail-oauth2--by-function (user host)
  "Return the token that the user's function has for USER at HOST."
  (when rs-smtpmail-oauth2-token-function
    (let ((token (rs-smtpmail--stoppably
                   (funcall rs-smtpmail-oauth2-token-function user host))))
      (unless (or (null token) (stringp token))
        (error "`rs-smtpmail-oauth2-token-function' returned no string"))
      (and token (string-trim token)))))

(defun rs-smtpmail-oauth2--command (user host)
  "Return the program and arguments that give a token for USER at HOST."
  (let* ((value rs-smtpmail-oauth2-token-command)
         (command (if (consp (car-safe value))
                      (cdr (or (assoc user value) (assoc host value)))
                    value))
         (fill (lambda (text quote)
                 (replace-regexp-in-string
                  "%[hu]"
                  (lambda (spec) (funcall quote (if (equal spec "%u") user host)))
                  text t t))))
    (if (stringp command)
        (list shell-file-name shell-command-switch
              (funcall fill command #'shell-quote-argument))
      (mapcar (lambda (word) (funcall fill word #'identity)) command))))

(defun rs-smtpmail-oauth2--by-command (user host answer)
  "Run the command for USER at HOST, and call ANSWER when it has ended.
Its argument is an answer for the engine: nil if there is no command."
  (let ((command (rs-smtpmail-oauth2--command user host)))
    (if (null command)
        (funcall answer nil)
      (rs-smtpmail-oauth2--run
       command
       (lambda (token complaint)
         (funcall answer
                  (if token
                      (list :user user :secret token)
                    (list :error (format "No access token for %s at %s: %s"
                                         user host complaint)))))))))

(defun rs-smtpmail-oauth2--run (command function)
  "Run COMMAND, and call FUNCTION when it has ended.
It gets the first line that COMMAND printed, or nil and what went wrong."
  (let* ((default-directory (expand-file-name "~/"))
         (output (generate-new-buffer " *rs-smtpmail-oauth2*" t))
         (complaints (generate-new-buffer " *rs-smtpmail-oauth2-errors*" t))
         (errors (make-pipe-process :name "rs-smtpmail-oauth2-errors"
                                    :buffer complaints
                                    :noquery t
                                    :sentinel #'ignore))
         (finish (lambda (process)
                   (apply function (rs-smtpmail-oauth2--result process complaints))
                   (rs-smtpmail-oauth2--clear output complaints errors)))
         timer)
    (condition-case err
        (let ((process
               (make-process
                :name "rs-smtpmail-oauth2"
                :command command
                :buffer output
                :stderr errors
                :noquery t
                :connection-type 'pipe
                :sentinel
                (lambda (process _)
                  (unless (process-live-p process)
                    (when timer
                      (cancel-timer timer))
                    ;; Its last words may come after its end; but another process
                    ;; that it has left behind may hold the pipe for ever.
                    (run-at-time (if (process-live-p errors) 0.1 0)
                                 nil finish process))))))
          (setq timer (run-at-time rs-smtpmail-oauth2--patience nil
                                   #'delete-process process))
          (when (process-live-p process)
            (ignore-errors (process-send-eof process))))
      (error
       (rs-smtpmail-oauth2--clear output complaints errors)
       ;; Not every version of Emacs names the program.
       (error "%s: %s" (car command) (error-message-string err))))))

(defun rs-smtpmail-oauth2--result (process complaints)
  "Return a token of PROCESS, or nil, and what is wrong, with its COMPLAINTS."
  (let* ((status (process-exit-status process))
         (good (and (eq (process-status process) 'exit) (eql status 0)))
         (token (with-current-buffer (process-buffer process)
                  (goto-char (point-min))
                  (string-trim (buffer-substring (point) (line-end-position)))))
         (words (with-current-buffer complaints
                  (string-join (split-string (buffer-string)) " "))))
    (if (and good (not (string-empty-p token)))
        (list token nil)
      (list nil
            (format "%s %s%s"
                    (car (last (split-string (car (process-command process)) "/")))
                    (cond (good "printed no token")
                          ((eq (process-status process) 'exit)
                           (format "ended with status %s" status))
                          (t "was killed"))
                    (if (string-empty-p words)
                        ""
                      (concat ": " (truncate-string-to-width
                                    words rs-smtpmail-oauth2--longest
                                    nil nil "..."))))))))

(defun rs-smtpmail-oauth2--clear (output complaints errors)
  "Kill the buffers OUTPUT and COMPLAINTS and the process ERRORS."
  (delete-process errors)
  (kill-buffer output)
  (kill-buffer complaints))

(defun rs-smtpmail--tell-token-replaced (event)
  "Tell the user of EVENT, that a refresh token has been replaced."
  (display-warning
   '(rs-smtpmail oauth2)
   (format "The provider has given a new refresh token for %s at %s.
It is used until Emacs ends; the stored one may work no longer, and then you
have to authorise anew.  If your provider keeps both, as Microsoft does, add
(rs-smtpmail oauth2) to `warning-suppress-types'."
           (or (plist-get event :user) "you")
           (plist-get event :host))
   :warning))

(provide 'rs-smtpmail-oauth2)

;;; rs-smtpmail-oauth2.el ends here
