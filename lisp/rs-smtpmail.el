;;; rs-smtpmail.el --- Send mail without waiting, by a native SMTP module  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; Author: The rs-smtpmail authors
;; Maintainer: The rs-smtpmail authors
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1"))
;; Keywords: mail
;; URL: https://github.com/rs-smtpmail/rs-smtpmail

;; This program is free software: you can redistribute it and/or modify
;; it under the terms of the GNU General Public License as published by
;; the Free Software Foundation, either version 3 of the License, or
;; (at your option) any later version.

;; This program is distributed in the hope that it will be useful,
;; but WITHOUT ANY WARRANTY; without even the implied warranty of
;; MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
;; GNU General Public License for more details.

;; You should have received a copy of the GNU General Public License
;; along with this program.  If not, see <https://www.gnu.org/licenses/>.

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Delivers mail where smtpmail would, by a dynamic module: the message is
;; put in a spool on disk, Emacs goes on at once, and native threads talk to
;; the server.  Every `smtpmail-*' option keeps its meaning.
;;
;; Either route everything that uses smtpmail through the module:
;;
;;     (rs-smtpmail-mode 1)
;;
;; or name it where mail is sent:
;;
;;     (setq send-mail-function #'rs-smtpmail-send-it
;;           message-send-mail-function #'rs-smtpmail-send-it)
;;
;; Other packages can hand over messages with `rs-smtp-send'.
;;
;; Preparing the header stays smtpmail's work: `smtpmail-send-it' runs as it
;; is, and two of the functions that it calls are advised, the one that finds
;; the recipients and the one that talks to the server.  A function that the
;; user has defined instead of the latter runs, too, down to smtpmail's own.

;;; Code:

(eval-when-compile (require 'cl-lib))
(require 'rs-smtpmail-options)

(defvar mail-header-separator)
(defvar message-send-mail-function)
(defvar smtpmail-address-buffer)
(defvar smtpmail-mail-address)
(defvar smtpmail-queue-mail)
(defvar smtpmail-recipient-address-list)
(defvar smtpmail-smtp-server)
(defvar smtpmail-store-queue-variables)
(defvar unload-function-defs-list)

(declare-function native-comp-unit-file "ext:data.c" (comp-unit))
(declare-function subr-native-comp-unit "ext:data.c" (subr))
(declare-function rs-smtpmail--accept "rs-smtpmail-accounts")
(declare-function rs-smtpmail--account-in-force "rs-smtpmail-accounts")
(declare-function rs-smtpmail--account-of-mail "rs-smtpmail-accounts")
(declare-function rs-smtpmail--call-with-account "rs-smtpmail-accounts")
(declare-function rs-smtpmail--body-to-keep "rs-smtpmail-message")
(declare-function rs-smtpmail--changed "rs-smtpmail-engine")
(declare-function rs-smtpmail--check-header "rs-smtpmail-message")
(declare-function rs-smtpmail--complete-smtp-method "rs-smtpmail-message")
(declare-function rs-smtpmail--guarded "rs-smtpmail-engine")
(declare-function rs-smtpmail--header-separator "rs-smtpmail-message")
(declare-function rs-smtpmail--let-go "rs-smtpmail-later")
(declare-function rs-smtpmail--mail-recipients "rs-smtpmail-message")
(declare-function rs-smtpmail--note-filed "rs-smtpmail-copy")
(declare-function rs-smtpmail--recipients-between "rs-smtpmail-message")
(declare-function rs-smtpmail--release "rs-smtpmail-engine")
(declare-function rs-smtpmail--save-module "rs-smtpmail-native")
(declare-function rs-smtpmail--sender "rs-smtpmail-message")
(declare-function rs-smtpmail--wait-for-one "rs-smtpmail-engine")
(declare-function rs-smtpmail--with-wishes "rs-smtpmail-later")

(defconst rs-smtpmail-version "0.1.0"
  "The version of this package, and of the native module that it needs.")

;;;; Native functions

;; The first call of one of these finds and maps the module.  They return at
;; once, and their errors are signalled as `rs-smtp-error'.

;;;###autoload
(autoload 'rs-smtp-send "rs-smtpmail-native"
  "Accept MESSAGE for sending in the background; return its id.
See also `rs-smtp-queue-list'.

\(fn MESSAGE SENDER RECIPIENTS SERVER &optional CALLBACK OPTIONS)")

;;;###autoload
(autoload 'rs-smtp-check-server "rs-smtpmail-native"
  "Check whether mail could be sent to SERVER; return the check's number.\n\n(fn SERVER)")

;;;###autoload
(autoload 'rs-smtp-queue-list "rs-smtpmail-native"
  "Return the messages in the spool, a list of plists, oldest first.
See also `rs-smtp-queue-retry' and `rs-smtp-queue-remove'.

\(fn &optional ID)")

;;;###autoload
(autoload 'rs-smtp-queue-resume "rs-smtpmail-native"
  "Schedule what an earlier Emacs left; return the number of entries.\n\n(fn)")

;;;###autoload
(autoload 'rs-smtp-queue-flush "rs-smtpmail-native"
  "Try everything that waits now; return the number of entries.\n\n(fn)")

;;;###autoload
(autoload 'rs-smtp-queue-retry "rs-smtpmail-native"
  "Try entry ID now, whatever its state.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-queue-hold "rs-smtpmail-native"
  "Keep entry ID from being sent if HOLD is non-nil, else release it.\n\n(fn ID HOLD)")

;;;###autoload
(autoload 'rs-smtp-queue-remove "rs-smtpmail-native"
  "Delete entry ID and its message.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-queue-message "rs-smtpmail-native"
  "Return the message of entry ID, a unibyte string with CRLF line ends.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-queue-schedule "rs-smtpmail-native"
  "Send entry ID at TIME, or now if TIME is nil.\n\n(fn ID TIME)")

;;;###autoload
(autoload 'rs-smtp-queue-export "rs-smtpmail-native"
  "Write entry ID's message to FILE, which then stands for it.\n\n(fn ID FILE)")

;;;###autoload
(autoload 'rs-smtp-queue-filed "rs-smtpmail-native"
  "Take note that entry ID's copy is filed, or of the PROBLEM.

\(fn ID &optional PROBLEM COPY)")

;;;###autoload
(autoload 'rs-smtp-cancel "rs-smtpmail-native"
  "Stop sending entry ID and hold it; nil if the server has it already.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-parse-addresses "rs-smtpmail-native"
  "Return the addresses in TEXT, the value of the header field FIELD.\n\n(fn TEXT &optional FIELD)")

;;;###autoload
(autoload 'rs-smtp-version "rs-smtpmail-native"
  "Return the version of the native module.\n\n(fn)")

;;;; Internal variables

(defvar rs-smtpmail-mode)

(defvar rs-smtpmail--calls 0
  "How many calls of `rs-smtpmail-send-it' are under way.")

(defvar rs-smtpmail--mail nil
  "What was found about the mail under way before anything was done.
A property list of `:recipients', `:sender', both for the envelope,
`:account', and `:body', which may be nil; see `rs-smtpmail--body-to-keep'.")

(defvar rs-smtpmail--under-way nil
  "What is wished for the message under way, a plist.
See `rs-smtpmail--with-wishes'.")

(defvar rs-smtpmail--recallable nil
  "Messages of this session that may be taken back, newest first.
An alist of their ids and plists; see `rs-smtpmail--let-go'.")

(defvar rs-smtpmail--resumed nil
  "Whether what an earlier Emacs left has been taken up.")

(defvar rs-smtpmail--spool-timer nil
  "Timer of `rs-smtpmail-mode' that looks into the spool.")

(defvar rs-smtpmail--is-default nil
  "Whether `rs-smtpmail-mode' has set `send-mail-function', never chosen before.")

(defvar rs-smtpmail--choice-told nil
  "Whether the user has been told whose mail is not ours.")

(defconst rs-smtpmail--options
  '(rs-smtpmail-defer-fcc rs-smtpmail-dsn rs-smtpmail-send-at-date
    rs-smtpmail-synchronous rs-smtpmail-undo-delay smtpmail-debug-info
    smtpmail-code-conv-from smtpmail-local-domain smtpmail-mail-address
    smtpmail-queue-dir smtpmail-queue-index-file smtpmail-queue-mail
    smtpmail-retries smtpmail-sendto-domain smtpmail-servers-requiring-authorization
    smtpmail-smtp-server smtpmail-smtp-service smtpmail-smtp-user
    smtpmail-store-queue-variables smtpmail-stream-type)
  "Options that may be local to the mail buffer.")

(defconst rs-smtpmail--advice
  '((smtpmail-send-it . rs-smtpmail--around-send-it)
    (smtpmail-deduce-address-list . rs-smtpmail--around-deduce)
    (smtpmail-via-smtp . rs-smtpmail--around-via-smtp)
    (smtpmail-send-queued-mail . rs-smtpmail--around-send-queued-mail))
  "Functions of smtpmail, and our advice around them while mail is ours.")

(defconst rs-smtpmail--not-ours
  '(sendmail-send-it sendmail-query-once mailclient-send-it
    message-send-mail-with-sendmail message-send-mail-with-qmail
    message-send-mail-with-mh message-send-mail-with-mailclient)
  "Functions that send mail without smtpmail.")

(defconst rs-smtpmail--no-server (copy-sequence "none")
  "What stands for a server while none is known; compared by `eq'.")

;;;; Whose mail it is

(defun rs-smtpmail--sending-function (is-message)
  "Return the function that sends the mail of this buffer.
IS-MESSAGE says that the mail is Message's."
  (let ((function (if is-message
                      (bound-and-true-p message-send-mail-function)
                    send-mail-function)))
    ;; These go by the other option, and nil is Message not loaded yet.
    (if (memq function '(nil message--default-send-mail-function
                         message-use-send-mail-function sendmail-query-once))
        send-mail-function
      function)))

(defun rs-smtpmail--ours-p (function)
  "Whether the module sends what FUNCTION is asked to send."
  (or (eq function 'rs-smtpmail-send-it)
      (and rs-smtpmail-mode (not (memq function rs-smtpmail--not-ours)))))

(defun rs-smtpmail--take-default ()
  "Send for who has never chosen a `send-mail-function'."
  (when (eq (default-value 'send-mail-function) 'sendmail-query-once)
    (set-default 'send-mail-function 'rs-smtpmail-send-it)
    (setq rs-smtpmail--is-default t)))

(defun rs-smtpmail--return-default ()
  "Let Emacs ask again who has never chosen a `send-mail-function'."
  (when (and rs-smtpmail--is-default
             (eq (default-value 'send-mail-function) 'rs-smtpmail-send-it))
    (set-default 'send-mail-function 'sendmail-query-once))
  (setq rs-smtpmail--is-default nil))

(defun rs-smtpmail--tell-choice ()
  "Tell the user, once, of an option by which mail is not ours."
  (unless rs-smtpmail--choice-told
    (let* ((message-function (rs-smtpmail--sending-function t))
           (function (seq-find (lambda (function)
                                 (memq function rs-smtpmail--not-ours))
                               (list send-mail-function message-function))))
      (when function
        (setq rs-smtpmail--choice-told t)
        (message "Mail is sent by `%s', not by rs-smtpmail, as `%s' says"
                 function
                 (if (eq function send-mail-function)
                     'send-mail-function
                   'message-send-mail-function))))))

;;;; Taking over from smtpmail

(defun rs-smtpmail--advise ()
  "Advise smtpmail's functions, inside of everybody else's advice."
  (pcase-dolist (`(,function . ,advice) rs-smtpmail--advice)
    (advice-add function :around advice '((depth . 100)))))

(defun rs-smtpmail--unadvise ()
  "Remove our advice, unless something still needs it."
  (unless (or rs-smtpmail-mode (> rs-smtpmail--calls 0))
    (pcase-dolist (`(,function . ,advice) rs-smtpmail--advice)
      (advice-remove function advice))))

(defun rs-smtpmail--routing-p ()
  "Return non-nil if the module takes over what smtpmail is asked to do."
  (or rs-smtpmail-mode (> rs-smtpmail--calls 0)))

(defun rs-smtpmail--around-send-it (original)
  "Check the mail before ORIGINAL, `smtpmail-send-it', touches anything."
  (if (not (rs-smtpmail--routing-p))
      (funcall original)
    (require 'rs-smtpmail-accounts)
    (require 'rs-smtpmail-later)
    (let ((mail-header-separator (rs-smtpmail--header-separator)))
      (rs-smtpmail--check-header)
      (rs-smtpmail--with-wishes
       (lambda () (rs-smtpmail--send-by-account original))))))

(defun rs-smtpmail--send-by-account (original)
  "Call ORIGINAL, `smtpmail-send-it', once it is known who sends to whom."
  (let* ((rs-smtpmail--mail (list :recipients (rs-smtpmail--mail-recipients)
                                  :sender (rs-smtpmail--sender)
                                  :account (rs-smtpmail--account-of-mail)
                                  :body (rs-smtpmail--body-to-keep)))
         (account (rs-smtpmail--account-in-force (current-buffer))))
    (unless (plist-get rs-smtpmail--mail :recipients)
      (user-error "Sending failed: no recipients in To, Cc or Bcc"))
    (save-restriction
      (pcase (plist-get rs-smtpmail--mail :body)
        (`(,_ ,start ,_) (narrow-to-region (point-min) start)))
      (rs-smtpmail--with-buffer-options
       (lambda ()
         (if (and account smtpmail-queue-mail)
             ;; The account's server must be stored with the mail.
             (let ((smtpmail-store-queue-variables t))
               (rs-smtpmail--call-with-account account original))
           (funcall original)))))))

(defun rs-smtpmail--with-buffer-options (function)
  "Call FUNCTION with the options local to this buffer in force everywhere.
For smtpmail reads most of them in a temporary buffer."
  (let* ((buffer (current-buffer))
         (options (seq-filter #'local-variable-p rs-smtpmail--options))
         (values (mapcar #'symbol-value options)))
    (unwind-protect
        (progn
          (mapc #'kill-local-variable options)
          (cl-progv options values
            (funcall function)))
      (when (buffer-live-p buffer)
        (with-current-buffer buffer
          ;; Emacs remarks on options that our caller has let-bound.
          (let ((inhibit-message t)
                (message-log-max nil))
            (cl-mapc (lambda (option value)
                       (set (make-local-variable option) value))
                     options values)))))))

(defun rs-smtpmail--around-deduce (original buffer start end)
  "Return the recipients between START and END in BUFFER, or call ORIGINAL."
  (if (not (rs-smtpmail--routing-p))
      (funcall original buffer start end)
    (let (done)
      ;; Our caller has taken the address in From in any case.
      (when rs-smtpmail--mail
        (setq smtpmail-mail-address (plist-get rs-smtpmail--mail :sender)))
      (unwind-protect
          (prog1 (setq smtpmail-recipient-address-list
                       (or (plist-get rs-smtpmail--mail :recipients)
                           (with-current-buffer buffer
                             (rs-smtpmail--recipients-between start end))))
            (setq done t))
        (unless done
          ;; Our caller would kill it after a normal return only.
          (kill-buffer smtpmail-address-buffer))))))

(defun rs-smtpmail--around-via-smtp (original recipients buffer &rest arguments)
  "Hand the message in BUFFER for RECIPIENTS to the module.
Or call ORIGINAL with these and ARGUMENTS if it is none of our business."
  (cond
   ((not (rs-smtpmail--routing-p))
    (apply original recipients buffer arguments))
   ((rs-smtpmail--smtpmails-own-p original)
    (rs-smtpmail--deliver recipients buffer))
   (t
    (apply #'rs-smtpmail--call-users original recipients buffer arguments))))

;; Many have defined a `smtpmail-via-smtp' of their own, which chooses a server
;; and calls smtpmail's, kept in a variable.  Theirs must run, and only what it
;; keeps be replaced.  If that was taken while our advice was on, it has the
;; advice, too, and comes back to us.  Otherwise it is the bare function, and
;; we meet it where it opens its connection, with the server that was chosen.
;; Whatever is not certainly smtpmail's own function is called this way.

(defun rs-smtpmail--smtpmails-own-p (function)
  "Whether FUNCTION certainly is from smtpmail.el, as compiled."
  (let ((file (ignore-errors
                (if (byte-code-function-p function)
                    ;; Where its documentation is.
                    (car-safe (aref function 4))
                  (native-comp-unit-file (subr-native-comp-unit function))))))
    (and (stringp file)
         (string-match-p "\\`smtpmail\\(?:\\.elc\\|-[0-9a-f]+-[0-9a-f]+\\.eln\\)\\'"
                         (file-name-nondirectory file)))))

(defun rs-smtpmail--call-users (function &rest arguments)
  "Call FUNCTION with ARGUMENTS, and deliver where smtpmail would connect."
  (require 'network-stream)
  (let ((open (symbol-function 'open-network-stream))
        (read coding-system-for-read)
        (write coding-system-for-write))
    (cl-letf (((symbol-function 'open-network-stream)
               (lambda (name &rest rest)
                 (if (not (and (equal name "smtpmail") (rs-smtpmail--routing-p)))
                     (apply open name rest)
                   (rs-smtpmail--forget-no-server)
                   ;; smtpmail leaves by this tag, too, with nil for success.
                   (throw 'done
                          (let ((coding-system-for-read read)
                                (coding-system-for-write write))
                            (apply #'rs-smtpmail--deliver
                                   (rs-smtpmail--smtpmails-arguments)))))))
              ;; Perhaps an account knows the server.
              ((symbol-function 'smtpmail-query-smtp-server)
               (lambda ()
                 (setq smtpmail-smtp-server rs-smtpmail--no-server))))
      (unwind-protect
          (apply function arguments)
        (rs-smtpmail--forget-no-server)))))

(defun rs-smtpmail--forget-no-server ()
  "Leave no trace of `rs-smtpmail--no-server'."
  (when (eq smtpmail-smtp-server rs-smtpmail--no-server)
    (setq smtpmail-smtp-server nil)))

(defun rs-smtpmail--smtpmails-arguments ()
  "Return the recipients and the buffer that smtpmail's function was called with.
That is the innermost call with a list of texts and a buffer."
  (catch 'rs-smtpmail--arguments
    (mapbacktrace
     (lambda (evaluated _function arguments _flags)
       (pcase (and evaluated arguments)
         (`((,(pred stringp) . ,_) ,(pred bufferp) . ,_)
          (throw 'rs-smtpmail--arguments (seq-take arguments 2))))))
    (error "Sending failed: `smtpmail-via-smtp' is not as it was")))

(defun rs-smtpmail--deliver (recipients buffer)
  "Hand the message in BUFFER for RECIPIENTS to the module."
  (require 'rs-smtpmail-accounts)
  (let* ((wishes rs-smtpmail--under-way)
         (id (rs-smtpmail--accept recipients buffer (plist-get wishes :options))))
    (rs-smtpmail--changed id)
    (unless rs-smtpmail--resumed
      (setq rs-smtpmail--resumed t)
      ;; This message is accepted, whatever is wrong with others.
      (rs-smtpmail--guarded "resuming" #'rs-smtp-queue-resume))
    (when wishes
      (rs-smtpmail--note-filed id wishes))
    (when (and (rs-smtpmail--synchronous-p) (not (plist-get wishes :time)))
      ;; What else is sent while we wait is not this message.
      (let ((rs-smtpmail--under-way nil)
            (rs-smtpmail--mail nil)
            (rs-smtpmail--calls 0))
        (rs-smtpmail--wait-for-one id)))
    (when wishes
      ;; A second message from the same buffer must not be filed, too.
      (setq rs-smtpmail--under-way nil)
      (rs-smtpmail--let-go id wishes))
    ;; What smtpmail takes for success.
    nil))

(defun rs-smtpmail--around-send-queued-mail (original)
  "Send queued mail our way, or by ORIGINAL if `rs-smtpmail-mode' is off."
  (if rs-smtpmail-mode
      (rs-smtpmail-send-queued-mail)
    (funcall original)))

(defun rs-smtpmail--around-multi-smtp (original)
  "Call ORIGINAL, `message-multi-smtp-send-mail', to send our way if it is ours.
Where the header names a server, ORIGINAL calls smtpmail whatever the options
say, and needs a port."
  (if (not (or rs-smtpmail-mode
               (rs-smtpmail--ours-p (rs-smtpmail--sending-function t))))
      (funcall original)
    (require 'rs-smtpmail-message)
    (rs-smtpmail--complete-smtp-method)
    (rs-smtpmail--call-routed original)))

;; On at all times, for those who name `rs-smtpmail-send-it' in an option.
;;;###autoload
(progn
  (autoload 'rs-smtpmail--around-multi-smtp "rs-smtpmail")
  (advice-add 'message-multi-smtp-send-mail :around
              #'rs-smtpmail--around-multi-smtp '((depth . 100))))

(defun rs-smtpmail--synchronous-p ()
  "Whether to wait for the server's answer; see `rs-smtpmail-synchronous'."
  (if (eq rs-smtpmail-synchronous 'batch)
      noninteractive
    rs-smtpmail-synchronous))

;;;; Commands

;;;###autoload
(defun rs-smtpmail-send-it ()
  "Send the mail in the current buffer.
A value for the options `send-mail-function' and the variable
`message-send-mail-function'.  The mail is safely in the spool when this
returns; the outcome is told later, unless `rs-smtpmail-synchronous' says
otherwise."
  (rs-smtpmail--call-routed #'smtpmail-send-it))

(defun rs-smtpmail--call-routed (function)
  "Call FUNCTION; the module does what it asks of smtpmail."
  (require 'smtpmail)
  (unwind-protect
      (let ((rs-smtpmail--calls (1+ rs-smtpmail--calls)))
        (rs-smtpmail--advise)
        (funcall function))
    (rs-smtpmail--unadvise)))

;; For those who only `require' this file.
(autoload 'rs-smtpmail-send-queued-mail "rs-smtpmail-queue"
  "Send what waits in smtpmail's queue and in the spool." t)
(autoload 'rs-smtpmail-resume "rs-smtpmail-queue"
  "Take up what an earlier Emacs left in the spool." t)
(autoload 'rs-smtpmail-export-queue "rs-smtpmail-queue"
  "Move the messages in the spool to smtpmail's queue." t)
(autoload 'rs-smtpmail-retry "rs-smtpmail-queue"
  "Try again to send a message that waits or failed." t)
(autoload 'rs-smtpmail-remove "rs-smtpmail-queue"
  "Give up a message in the spool and delete it." t)
(autoload 'rs-smtpmail-send-at "rs-smtpmail-later"
  "Send the mail in this buffer at TIME." t)
(autoload 'rs-smtpmail-undo-send "rs-smtpmail-later"
  "Take back a message that has not been sent yet, and edit it." t)
(autoload 'rs-smtpmail-outbox "rs-smtpmail-outbox"
  "Show the mail that has not been sent yet." t)
(autoload 'rs-smtpmail-mode-line-mode "rs-smtpmail-mode-line"
  "Count in the mode line the mail that has not been sent." t)
(autoload 'rs-smtpmail-check-server "rs-smtpmail-watch"
  "Check whether mail could be sent to SERVER, and show each step." t)
(autoload 'rs-smtpmail-tls-forget "rs-smtpmail-tls"
  "Forget what was learnt of the TLS of SERVER." t)
(autoload 'rs-smtpmail-request-dsn "rs-smtpmail-watch"
  "Ask for a notification when the mail in this buffer has been delivered." t)
(autoload 'rs-smtpmail-add-account "rs-smtpmail-add-account"
  "Add an account for ADDRESS to `rs-smtpmail-accounts'." t)
(autoload 'rs-smtpmail-compile-module "rs-smtpmail-compile"
  "Build the native module from its sources." t)

;;;; Mode

(defun rs-smtpmail--when-idle ()
  "Do what had to wait until the init file has been loaded."
  (rs-smtpmail--tell-choice)
  (rs-smtpmail--look-into-spool))

(defun rs-smtpmail--look-into-spool ()
  "Take up what an earlier Emacs left, without the module if it left nothing."
  (let ((queue (expand-file-name "queue" rs-smtpmail-spool-directory)))
    (when (and (not rs-smtpmail--resumed)
               (file-accessible-directory-p queue)
               (directory-files queue nil "\\`[^.]" t 1))
      (condition-case err
          (rs-smtpmail-resume)
        (error (display-warning
                'rs-smtpmail
                (format "Mail waits in %s: %s"
                        rs-smtpmail-spool-directory
                        (error-message-string err))))))))

;;;###autoload
(define-minor-mode rs-smtpmail-mode
  "Send by the native module what would be sent by smtpmail.
This covers everything that calls `smtpmail-send-it',
`smtpmail-via-smtp' or `smtpmail-send-queued-mail', and the mail of who has
never chosen a `send-mail-function'.  Mail that an earlier Emacs left in the
spool is taken up when Emacs is idle.  The mode line counts what has not
been sent, unless `rs-smtpmail-mode-line' is nil."
  :global t
  :group 'rs-smtpmail
  (when rs-smtpmail--spool-timer
    (cancel-timer rs-smtpmail--spool-timer)
    (setq rs-smtpmail--spool-timer nil))
  (when (if rs-smtpmail-mode
            rs-smtpmail-mode-line
          (bound-and-true-p rs-smtpmail-mode-line-mode))
    (rs-smtpmail-mode-line-mode (if rs-smtpmail-mode 1 -1)))
  (cond
   (rs-smtpmail-mode
    (rs-smtpmail--advise)
    (rs-smtpmail--take-default)
    (when after-init-time
      (rs-smtpmail--tell-choice))
    (setq rs-smtpmail--spool-timer
          (run-with-idle-timer 2 nil #'rs-smtpmail--when-idle)))
   (t
    (rs-smtpmail--return-default)
    (rs-smtpmail--unadvise))))

(defun rs-smtpmail-unload-function ()
  "Undo what this package has done to Emacs, and unload its other files."
  (rs-smtpmail-mode -1)
  (when (bound-and-true-p rs-smtpmail-mode-line-mode)
    (rs-smtpmail-mode-line-mode -1))
  (advice-remove 'message-multi-smtp-send-mail #'rs-smtpmail--around-multi-smtp)
  (when (featurep 'rs-smtpmail-native)
    (rs-smtpmail--release)
    (rs-smtpmail--save-module))
  (dolist (timer (append timer-list timer-idle-list))
    (let ((function (timer--function timer)))
      (when (and (symbolp function)
                 (string-prefix-p "rs-smtpmail" (symbol-name function)))
        (cancel-timer timer))))
  (dolist (feature features)
    (when (and (string-prefix-p "rs-smtpmail-" (symbol-name feature))
               (featurep feature))
      (unload-feature feature t)))
  ;; The user may have kept `smtpmail-via-smtp' with our advice; it still works.
  (defalias 'rs-smtpmail--around-via-smtp #'funcall)
  (setq unload-function-defs-list
        (delete '(defun . rs-smtpmail--around-via-smtp) unload-function-defs-list))
  ;; The rest is as usual.
  nil)

(provide 'rs-smtpmail)

;;; rs-smtpmail.el ends here
